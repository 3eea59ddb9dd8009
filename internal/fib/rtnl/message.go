package rtnl

// Header is struct nlmsghdr.
type Header struct {
	Len   uint32 // octets with the header; ignored when encoding
	Type  uint16
	Flags uint16
	Seq   uint32
	PID   uint32 // port of the socket, 0: the kernel
}

// Next splits the first message off b. The payload and the rest are parts of b. Errors: *Error with BadFraming, after
// which nothing of b can be read. An empty b is not to be asked.
func Next(b []byte) (h Header, payload, rest []byte, err error) {
	if len(b) < headerSize {
		return h, nil, nil, refuse(BadFraming, "octets of a message", len(b), "16 or more")
	}
	h = header(b)
	if h.Len < headerSize || h.Len > MaxMessage || int(h.Len) > len(b) {
		return h, nil, nil, refuse(BadFraming, "nlmsg_len", int(h.Len), "16 to what was received")
	}
	n := int(h.Len)
	return h, b[headerSize:n], b[min(align(n), len(b)):], nil
}

func header(b []byte) Header {
	return Header{order.Uint32(b), order.Uint16(b[4:]), order.Uint16(b[6:]), order.Uint32(b[8:]), order.Uint32(b[12:])}
}

// begin appends a header, whose length end fills in.
func begin(b []byte, h Header) ([]byte, int) {
	at := len(b)
	b = order.AppendUint32(b, 0)
	b = order.AppendUint16(b, h.Type)
	b = order.AppendUint16(b, h.Flags)
	b = order.AppendUint32(b, h.Seq)
	return order.AppendUint32(b, h.PID), at
}

func end(b []byte, at int) []byte {
	order.PutUint32(b[at:], uint32(len(b)-at))
	return b
}

// Message is one decoded message: one of the pointers is set for the types that this package knows, none for others.
// What they point to belongs to the Decoder and is overwritten by its next message.
type Message struct {
	Header
	Route   *Route   // NewRoute, DelRoute
	NextHop *NextHop // NewNextHop, DelNextHop
	Ack     *Ack     // TypeError, TypeDone
}

// Counters tell what a Decoder has seen.
type Counters struct {
	Routes   uint64 // messages about routes, decoded
	NextHops uint64 // messages about next hops, decoded
	Acks     uint64 // errors, acknowledgements and ends of dumps
	Other    uint64 // well-formed messages of other types
	Refused  [NumReasons]uint64
}

// Decoder decodes messages one after the other. Routes are decoded without allocating. The zero value is ready to use;
// it is not safe for concurrent use.
type Decoder struct {
	Counters Counters
	route    Route
	hop      NextHop
	ack      Ack
}

// Next decodes the first message of b and returns what follows it. After an error that is not BadFraming rest can be
// read on; after BadFraming it is nil. An empty b is not to be asked.
func (d *Decoder) Next(b []byte) (m Message, rest []byte, err error) {
	h, payload, rest, err := Next(b)
	m.Header = h
	if err == nil {
		switch h.Type {
		case NewRoute, DelRoute:
			if err = DecodeRoute(payload, &d.route); err == nil {
				m.Route = &d.route
				d.Counters.Routes++
			}
		case NewNextHop, DelNextHop:
			if err = DecodeNextHop(payload, &d.hop); err == nil {
				m.NextHop = &d.hop
				d.Counters.NextHops++
			}
		case TypeError, TypeDone:
			if err = DecodeAck(h, payload, &d.ack); err == nil {
				m.Ack = &d.ack
				d.Counters.Acks++
			}
		default:
			d.Counters.Other++
		}
	}
	if err != nil {
		d.Counters.Refused[err.(*Error).Reason]++
	}
	return m, rest, err
}
