// Package tierb has no code, only a test: the hostile cases of docs/digsig-cases.md against fs-verity and BPF LSM, in a guest with
// Debian 13's kernel. Tier F's are in the package above.
package tierb
