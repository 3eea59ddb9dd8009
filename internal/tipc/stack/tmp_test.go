package stack_test

var hostileLink, hostileNames, hostileDiscovery, hostileSockets, hostileTopology []hostile
