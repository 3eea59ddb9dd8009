package worker

import "os"

var root = os.DirFS("/")
