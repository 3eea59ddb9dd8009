// Package aemtool is what `midplane aem` does: it shows the executors of programs that let themselves be seen (package
// aemview), and shows on this machine what an executor does for light work under overload.
package aemtool
