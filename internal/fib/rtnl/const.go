// Package rtnl is the octets of rtnetlink: messages about routes and next hops, with their acknowledgements, as the
// kernel and FRR write them. It has no socket: the kernel mirror, the FPM server and tests bring their own. Decoding
// takes whatever a peer may send: sizes are checked before anything is read, a message that is refused is counted by
// the reason, and the ones around it are not lost. Numbers are in the byte order of the host, as netlink has them
// (netlink(7)), also on FPM's TCP connection.
package rtnl

// Types of messages (include/uapi/linux/netlink.h, rtnetlink.h).
const (
	TypeNoop       uint16 = 1
	TypeError      uint16 = 2
	TypeDone       uint16 = 3
	TypeOverrun    uint16 = 4
	NewRoute       uint16 = 24
	DelRoute       uint16 = 25
	GetRoute       uint16 = 26
	NewNextHop     uint16 = 104
	DelNextHop     uint16 = 105
	GetNextHop     uint16 = 106
	headerSize            = 16
	routeSize             = 12
	nextHopSize           = 8
	pathSize              = 8 // struct rtnexthop
	memberSize            = 8 // struct nexthop_grp
	attrHeaderSize        = 4
	attrTypeMask          = 1<<14 - 1 // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
)

// Flags of the message header.
const (
	FlagRequest    uint16 = 0x1
	FlagMulti      uint16 = 0x2
	FlagAck        uint16 = 0x4
	FlagDumpIntr   uint16 = 0x10  // a dump that is not of one moment
	FlagDump       uint16 = 0x300 // of a GET
	FlagReplace    uint16 = 0x100 // of a NEW
	FlagExcl       uint16 = 0x200
	FlagCreate     uint16 = 0x400
	FlagAppend     uint16 = 0x800
	flagCapped     uint16 = 0x100 // of an error: the request is not repeated
	flagAckTLVs    uint16 = 0x200 // of an error: extended acknowledgement follows
	attrAckMessage        = 1     // NLMSGERR_ATTR_MSG
	attrAckOffset         = 2     // NLMSGERR_ATTR_OFFS
	attrAckMissing        = 5     // NLMSGERR_ATTR_MISS_TYPE
)

// Address families.
const (
	FamilyUnspec uint8 = 0
	FamilyIPv4   uint8 = 2
	FamilyIPv6   uint8 = 10
)

// Types of routes (RTN_…).
const (
	RouteUnspec      uint8 = 0
	RouteUnicast     uint8 = 1
	RouteLocal       uint8 = 2
	RouteBroadcast   uint8 = 3
	RouteAnycast     uint8 = 4
	RouteMulticast   uint8 = 5
	RouteBlackhole   uint8 = 6
	RouteUnreachable uint8 = 7
	RouteProhibit    uint8 = 8
	RouteThrow       uint8 = 9
	RouteNAT         uint8 = 10
)

// Protocols: who made a route (RTPROT_…).
const (
	ProtoUnspec   uint8 = 0
	ProtoRedirect uint8 = 1
	ProtoKernel   uint8 = 2
	ProtoBoot     uint8 = 3
	ProtoStatic   uint8 = 4
	ProtoRA       uint8 = 9
	ProtoZebra    uint8 = 11
	ProtoBIRD     uint8 = 12
)

// Scopes (RT_SCOPE_…).
const (
	ScopeUniverse uint8 = 0
	ScopeSite     uint8 = 200
	ScopeLink     uint8 = 253
	ScopeHost     uint8 = 254
	ScopeNowhere  uint8 = 255
)

// Flags of a route (RTM_F_…; RTNH_F_… share the word for routes of one path).
const (
	RouteDead          uint32 = 0x1
	RoutePervasive     uint32 = 0x2
	RouteOnLink        uint32 = 0x4
	RouteLinkDown      uint32 = 0x10
	RouteNotify        uint32 = 0x100
	RouteCloned        uint32 = 0x200
	RouteFIBMatch      uint32 = 0x2000
	RouteOffload       uint32 = 0x4000
	RouteTrap          uint32 = 0x8000
	RouteOffloadFailed uint32 = 0x20000000
)

// Flags of a path (RTNH_F_…).
const (
	PathDead     uint8 = 0x1
	PathOnLink   uint8 = 0x4
	PathOffload  uint8 = 0x8
	PathLinkDown uint8 = 0x10
)

// Routing tables with a name.
const (
	TableUnspec  uint32 = 0
	TableCompat  uint32 = 252 // in rtm_table: the number is in RTA_TABLE
	TableDefault uint32 = 253
	TableMain    uint32 = 254
	TableLocal   uint32 = 255
)

// Attributes of routes.
const (
	rtaDst       = 1
	rtaSrc       = 2
	rtaOIF       = 4
	rtaGateway   = 5
	rtaPriority  = 6
	rtaPrefSrc   = 7
	rtaMetrics   = 8
	rtaMultipath = 9
	rtaTable     = 15
	rtaVia       = 18
	rtaEncapType = 21
	rtaEncap     = 22
	rtaNHID      = 30
)

// Attributes of next hops.
const (
	nhaID        = 1
	nhaGroup     = 2
	nhaGroupType = 3
	nhaBlackhole = 4
	nhaOIF       = 5
	nhaGateway   = 6
	nhaEncapType = 7
	nhaEncap     = 8
	nhaFDB       = 11
)

// Bounds.
const (
	MaxPaths   = 256     // paths of one route; the kernel has no bound but the attribute's 64 kB
	MaxMembers = 256     // members of one group
	MaxMessage = 1 << 20 // octets of one message; the kernel's own dumps come in less than 64 kB
)
