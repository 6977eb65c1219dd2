//go:build !faults

package main

// faultKills is how often a run is killed; make faults takes more.
const faultKills = 25
