package stack_test

var hostileNames, hostileDiscovery, hostileSockets, hostileTopology []hostile
