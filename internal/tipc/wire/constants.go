package wire

// Specification constants: fixed by the protocol (net/tipc/msg.h, include/uapi/linux/tipc.h).
const (
	Version = 2 // protocol version in the top three bits of each message

	ShortHeaderSize = 24 // connection message inside the cluster
	BasicHeaderSize = 32
	NamedHeaderSize = 40
	IntHeaderSize   = 40 // internal users
	McastHeaderSize = 44
	GroupHeaderSize = 44
	MinHeaderSize   = 24
	MaxHeaderSize   = 60
	DscHeaderSize   = 60 // LINK_CONFIG, followed by the 16-octet node identity

	MaxUserMsgSize = 66000                          // largest user payload, octets
	MaxMsgSize     = MaxHeaderSize + MaxUserMsgSize // largest message with header
	MediaInfoSize  = 32                             // discovery media address field
	NodeIDSize     = 16                             // 128-bit node identity
	LinkNameSize   = 68                             // TIPC_MAX_LINK_NAME
	IfNameSize     = 16                             // TIPC_MAX_IF_NAME: interface name in RESET and ACTIVATE
	MaxReturnData  = 1024                           // payload kept in a returned message (net/tipc/msg.c MAX_FORWARD_SIZE)
	DefaultNetID   = 4711                           // cluster identity
	UDPPort        = 6118                           // IANA port of TIPC over UDP
	EtherType      = 0x88CA                         // Ethernet protocol number
	ReservedTypes  = 64                             // service types below are the protocol's own (TIPC_RESERVED_TYPES)
	TopologyType   = 1                              // service {1,1}: topology server (TIPC_TOP_SRV)
	NodeStateType  = 0                              // service {0,node}: node states (TIPC_NODE_STATE)
	LinkStateType  = 2                              // service {2,peer}: link states (TIPC_LINK_STATE)
	FlowBlockSize  = 1024                           // unit of block flow control (FLOWCTL_BLK_SZ)
)

// User is the message user (header word 0, bits 28-25). Users 0 to 3 are data messages of that importance.
type User uint8

// Message users (net/tipc/msg.h).
const (
	UserLow           User = 0
	UserMedium        User = 1
	UserHigh          User = 2
	UserCritical      User = 3
	UserBcastProtocol User = 5
	UserBundler       User = 6
	UserLinkProtocol  User = 7
	UserConnManager   User = 8
	UserGroup         User = 9
	UserTunnel        User = 10
	UserNameDistr     User = 11
	UserFragmenter    User = 12
	UserLinkConfig    User = 13
	UserCrypto        User = 14
	UserSockWakeup    User = 14 // local pseudo user, never on the wire
	UserTopSrv        User = 15 // local pseudo user, never on the wire
)

// SystemImportance is the level of internal messages, above the four of users (TIPC_SYSTEM_IMPORTANCE).
const SystemImportance = 4

// Types of data messages (users 0 to 3).
const (
	TypeConn           = 0 // on a connection
	TypeMcast          = 1 // to every socket bound in a range
	TypeNamed          = 2 // to one socket by service address
	TypeDirect         = 3 // to a socket address
	TypeGroupMemberEvt = 4
	TypeGroupBcast     = 5
	TypeGroupMcast     = 6
	TypeGroupUcast     = 7
)

// Types of LINK_PROTOCOL messages.
const (
	TypeState    = 0
	TypeReset    = 1
	TypeActivate = 2
)

// Types of CONN_MANAGER messages.
const (
	TypeConnProbe      = 0
	TypeConnProbeReply = 1
	TypeConnAck        = 2
)

// Types of NAME_DISTRIBUTOR messages.
const (
	TypePublication = 0
	TypeWithdrawal  = 1
)

// Types of MSG_FRAGMENTER messages.
const (
	TypeFirstFragment = 0
	TypeFragment      = 1
	TypeLastFragment  = 2
)

// Types of TUNNEL_PROTOCOL messages.
const (
	TypeSynch    = 0
	TypeFailover = 1
)

// Types of MSG_BUNDLER messages: Linux sets none.
const TypeBundleOpen = 0

// Types of GROUP_PROTOCOL messages.
const (
	TypeGroupJoin    = 0
	TypeGroupLeave   = 1
	TypeGroupAdv     = 2
	TypeGroupAck     = 3
	TypeGroupReclaim = 4
	TypeGroupRemit   = 5
)

// Types of LINK_CONFIG (discovery) messages.
const (
	TypeDscRequest   = 0
	TypeDscResponse  = 1
	TypeDscTrial     = 2
	TypeDscTrialFail = 3
)

// TypeKeyDistr is the only type of MSG_CRYPTO messages.
const TypeKeyDistr = 0

// ErrCode is the error code of a returned or shutting-down message (header word 1, bits 28-25).
type ErrCode uint8

// Error codes (include/uapi/linux/tipc.h).
const (
	CodeOK           ErrCode = 0
	CodeNoName       ErrCode = 1 // nobody is bound to the service address
	CodeNoPort       ErrCode = 2 // no such socket
	CodeNoNode       ErrCode = 3 // node unreachable
	CodeOverload     ErrCode = 4 // receiver's queue is full
	CodeConnShutdown ErrCode = 5 // orderly end of a connection
)

// String returns the kernel's name of the code, without its TIPC_ prefix.
func (e ErrCode) String() string {
	switch e {
	case CodeOK:
		return "OK"
	case CodeNoName:
		return "ERR_NO_NAME"
	case CodeNoPort:
		return "ERR_NO_PORT"
	case CodeNoNode:
		return "ERR_NO_NODE"
	case CodeOverload:
		return "ERR_OVERLOAD"
	case CodeConnShutdown:
		return "CONN_SHUTDOWN"
	}
	return "ERR_" + itoa(uint32(e))
}

// Caps are the capability bits that a node announces in discovery (net/tipc/node.h).
type Caps uint16

// Capabilities.
const (
	CapSynBit         Caps = 1 << 0
	CapBcastSynch     Caps = 1 << 1
	CapBcastStateNack Caps = 1 << 2
	CapBlockFlowctl   Caps = 1 << 3
	CapBcastRcast     Caps = 1 << 4
	CapNodeID128      Caps = 1 << 5
	CapLinkProtoSeqno Caps = 1 << 6
	CapMcastRbctl     Caps = 1 << 7
	CapGapAckBlock    Caps = 1 << 8
	CapTunnelEnhanced Caps = 1 << 9
	CapNagle          Caps = 1 << 10
	CapNamedBcast     Caps = 1 << 11

	CapsAll Caps = 0xfff // what Linux 6.1 announces, and we
)

// Scope of a binding (include/uapi/linux/tipc.h).
type Scope uint8

// Scopes.
const (
	ScopeCluster Scope = 2
	ScopeNode    Scope = 3
)

// String returns the name that the tipc tool prints.
func (s Scope) String() string {
	switch s {
	case 1:
		return "zone"
	case ScopeCluster:
		return "cluster"
	case ScopeNode:
		return "node"
	}
	return "scope" + itoa(uint32(s))
}

// String returns the kernel's name of the user.
func (u User) String() string {
	switch u {
	case UserLow:
		return "LOW"
	case UserMedium:
		return "MEDIUM"
	case UserHigh:
		return "HIGH"
	case UserCritical:
		return "CRITICAL"
	case UserBcastProtocol:
		return "BCAST_PROTOCOL"
	case UserBundler:
		return "MSG_BUNDLER"
	case UserLinkProtocol:
		return "LINK_PROTOCOL"
	case UserConnManager:
		return "CONN_MANAGER"
	case UserGroup:
		return "GROUP_PROTOCOL"
	case UserTunnel:
		return "TUNNEL_PROTOCOL"
	case UserNameDistr:
		return "NAME_DISTRIBUTOR"
	case UserFragmenter:
		return "MSG_FRAGMENTER"
	case UserLinkConfig:
		return "LINK_CONFIG"
	case UserCrypto:
		return "MSG_CRYPTO"
	case UserTopSrv:
		return "TOP_SRV"
	}
	return "USER_" + itoa(uint32(u))
}

func itoa(n uint32) string {
	var b [10]byte
	i := len(b)
	for {
		i--
		b[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			return string(b[i:])
		}
	}
}
