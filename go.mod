module midplane

go 1.26
