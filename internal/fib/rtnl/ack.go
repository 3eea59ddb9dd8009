package rtnl

import "syscall"

// Ack is NLMSG_ERROR, of which an acknowledgement is the one with errno 0, or NLMSG_DONE, the end of a dump.
type Ack struct {
	Errno   syscall.Errno // 0: done
	Request Header        // the message that it answers; not with TypeDone
	Message []byte        // extended acknowledgement: what the kernel says; a part of the input
	Offset  uint32        // where in the request the wrong attribute is, 0 unknown
	Missing uint32        // the type of an attribute that lacks, 0 none
}

// Err returns nil for an acknowledgement or an *AckError.
func (a *Ack) Err() error {
	if a.Errno == 0 {
		return nil
	}
	return &AckError{a.Errno, string(a.Message)}
}

// AckError is what the peer answered to a request.
type AckError struct {
	Errno   syscall.Errno
	Message string // of the extended acknowledgement, "" if there was none
}

// Error implements error.
func (e *AckError) Error() string {
	if e.Message == "" {
		return "netlink: " + e.Errno.Error()
	}
	return "netlink: " + e.Errno.Error() + ": " + e.Message
}

// Unwrap returns the error number.
func (e *AckError) Unwrap() error { return e.Errno }

// DecodeAck decodes the payload of TypeError or TypeDone. A TypeDone without a number, as old kernels and FRR have it,
// is one of errno 0. Attributes as in include/uapi/linux/netlink.h, enum nlmsgerr_attrs.
func DecodeAck(h Header, b []byte, a *Ack) error {
	*a = Ack{}
	if h.Type == TypeDone && len(b) == 0 {
		return nil
	}
	if len(b) < 4 {
		return refuse(BadSize, "error number", len(b), "4 octets")
	}
	n := int32(order.Uint32(b))
	if n > 0 || n < -4095 { // MAX_ERRNO
		return &Error{BadValue, "error number", uint64(uint32(n)), "0 to -4095"}
	}
	a.Errno = syscall.Errno(-n)
	b = b[4:]
	if h.Type == TypeError {
		if len(b) < headerSize {
			return refuse(BadSize, "request in NLMSG_ERROR", len(b), "16 octets or more")
		}
		a.Request = header(b)
		b = b[headerSize:]
		// The kernel repeats the whole request only with an error, and when it was not asked to cap it.
		if h.Flags&flagCapped == 0 && a.Errno != 0 {
			if a.Request.Len < headerSize || a.Request.Len > MaxMessage || align(int(a.Request.Len))-headerSize > align(len(b)) {
				return refuse(BadSize, "nlmsg_len in NLMSG_ERROR", int(a.Request.Len), "16 to what was received")
			}
			b = b[min(align(int(a.Request.Len))-headerSize, len(b)):]
		}
	}
	if h.Flags&flagAckTLVs == 0 {
		return nil
	}
	for len(b) > 0 {
		t, v, rest, err := attr(b)
		if err != nil {
			return err
		}
		switch t {
		case attrAckMessage:
			for len(v) > 0 && v[len(v)-1] == 0 {
				v = v[:len(v)-1]
			}
			a.Message = v
		case attrAckOffset:
			err = u32(v, "NLMSGERR_ATTR_OFFS", &a.Offset)
		case attrAckMissing:
			err = u32(v, "NLMSGERR_ATTR_MISS_TYPE", &a.Missing)
		}
		if err != nil {
			return err
		}
		b = rest
	}
	return nil
}

// AppendAck appends the message that answers request: an acknowledgement when errno is 0. text is the extended
// acknowledgement, "" for none.
func AppendAck(b []byte, request Header, errno syscall.Errno, text string) []byte {
	h := Header{Type: TypeError, Flags: flagCapped, Seq: request.Seq, PID: request.PID}
	if text != "" {
		h.Flags |= flagAckTLVs
	}
	b, at := begin(b, h)
	b = order.AppendUint32(b, uint32(-int32(errno)))
	b, inner := begin(b, request)
	order.PutUint32(b[inner:], request.Len)
	if text != "" {
		b = appendAttr(b, attrAckMessage, append([]byte(text), 0))
	}
	return end(b, at)
}

// AppendDone appends the end of a dump.
func AppendDone(b []byte, seq, pid uint32, errno syscall.Errno) []byte {
	b, at := begin(b, Header{Type: TypeDone, Flags: FlagMulti, Seq: seq, PID: pid})
	return end(order.AppendUint32(b, uint32(-int32(errno))), at)
}
