package stack_test

var hostileSockets, hostileTopology []hostile
