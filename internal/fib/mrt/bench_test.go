package mrt

import (
	"bytes"
	"fmt"
	"io"
	"testing"
)

// BenchmarkTableDump reads a dump of 10,000 prefixes with 20 paths each.
func BenchmarkTableDump(b *testing.B) {
	var file bytes.Buffer
	file.Write(peerTable(testPeers...))
	var paths []path
	for i := range 20 {
		paths = append(paths, path{uint16(i % 3), 0, attrs("192.0.2.7")})
	}
	for i := range 10000 {
		file.Write(rib(ribIPv4Unicast, fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255), paths...))
	}
	b.SetBytes(int64(file.Len()))
	b.ReportAllocs()
	for b.Loop() {
		r, err := NewReader(bytes.NewReader(file.Bytes()), Options{})
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		for {
			if _, err := r.Next(); err == io.EOF {
				break
			} else if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != 10000 {
			b.Fatal(n)
		}
	}
	b.ReportMetric(float64(b.N)*10000/b.Elapsed().Seconds(), "prefixes/s")
}
