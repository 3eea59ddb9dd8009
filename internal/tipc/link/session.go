package link

// InSession reports whether the link has heard the peer's session n, and none since.
func (l *Link) InSession(n uint16) bool { return l.inSession && l.peerSession == n }
