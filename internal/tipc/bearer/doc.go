// Package bearer holds the drivers that carry TIPC datagrams: UDP ([OpenUDP]),
// Ethernet ([OpenEth]) and memory ([Hub]), and [Trace], which writes what
// passes through any of them as pcap.
//
// A bearer knows nothing of the protocol. Its user starts one goroutine for
// each of its [Reader]s, which loops over ReadBatch and hands the packets to
// the core; no other goroutine is in between. Output is given to WriteBatch.
//
//	for _, r := range b.Readers() {
//		go func() {
//			var pkts [bearer.BatchSize]bearer.Packet
//			for {
//				n, err := r.ReadBatch(pkts[:])
//				if err != nil {
//					return // closed
//				}
//				... pkts[:n] ...
//			}
//		}()
//	}
//
// Datagrams can be lost, duplicated and reordered by any bearer; links repair
// that. Errors of single datagrams are therefore counted, not returned.
package bearer
