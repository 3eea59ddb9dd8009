package fib

import "midplane/internal/fib/flowhash"

// Flow is what the packets of a flow have in common: addresses of one family, protocol and ports. Ports are 0 for
// protocols without, and for fragments, so that all fragments of a packet go the same way.
type Flow = flowhash.Flow

// FlowHash returns the hash by which [Set.Resolve] chooses the member of a group, equal to that of the XDP forwarder with
// the same seed. Machines one after the other should have different seeds: behind one that has divided flows by the hash,
// the next would else see only flows that hash alike.
func FlowHash(seed uint64, f Flow) uint32 { return flowhash.Hash(seed, f) }
