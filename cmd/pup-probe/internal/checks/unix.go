package checks

import "pup/cmd/pup-probe/internal/probe"

func init() {
	register(probe.Info{
		Name:    "unix",
		Summary: "accepts a connection to a socket file, and answers as its steps say",
		Schemes: []probe.Scheme{{Name: "unix", Path: true}},
		Example: "unix:///run/app.sock",
		Doc: `The check tcp over a Unix domain socket of the type stream: without steps, up means that something accepts connections there; with steps, that each got what it expects. It needs --allow-files, since a socket file may give more rights than a port.

Every other check over TCP can use a socket file as well: connect = "unix:/run/redis.sock" beside url = "redis://localhost/0".

A file that does not exist, or that nobody listens on, is down with the reason refused; one that we have no right to is unknown.

Phases: connect; request is sending, wait is waiting for what must come.`,
	}, tcpOptions{MaxBytes: 64 << 10}, tcp)
}
