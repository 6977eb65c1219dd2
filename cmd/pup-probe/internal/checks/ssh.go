package checks

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

type sshOptions struct {
	sshSessionOptions
	Command   string `json:"command" doc:"A command to run, once logged in."`
	ExitCodes []int  `json:"exit_codes" doc:"The exit codes of command that are fine."`
}

type sshFacts struct {
	sshSessionFacts
	ExitCode    *int   `json:"exit_code" doc:"The exit code of command."`
	Signal      string `json:"signal" doc:"The signal that has ended command, such as KILL."`
	Output      string `json:"output" large:"true" doc:"What command prints, at most 64 KiB."`
	ErrorOutput string `json:"error_output" large:"true" doc:"What command prints to standard error, at most 64 KiB."`
}

func init() {
	register(probe.Info{
		Name:    "ssh",
		Summary: "an SSH server proves its key, lets us in and runs a command",
		Schemes: []probe.Scheme{{Name: "ssh", Port: 22}},
		Example: "ssh://host.example.org",
		Common:  probe.OverTCP,
		Doc: `Up means that the key exchange was done (RFC 4253), by which the server has proved to have its host key, that this is one of host_key if any is given, and, with a password or a key, that the login works (RFC 4252); with a command, that it has run and ended with one of exit_codes.

Without credentials the check ends where the login would begin: logged_in is false, and auth_methods says what the server would take. Without host_key any key will do, and the fact host_key tells which it was. A password is only sent to a server whose host_key is given, or on this machine.

A host key that is not among host_key is ` + "`certificate-untrusted`" + `, a refused login ` + "`denied`" + `, a command that fails ` + "`mismatch`" + `.

Phases: greet has the identification and the key exchange, auth the login, request the command.`,
	}, sshOptions{ExitCodes: []int{0}}, sshCheck)
}

func sshCheck(ctx context.Context, p *probe.Probe, opt *sshOptions, facts *sshFacts) error {
	s, err := sshDial(ctx, p, &opt.sshSessionOptions, &facts.sshSessionFacts, opt.Command != "")
	defer s.close()
	if err != nil || opt.Command == "" {
		return err
	}
	p.Phase(wire.Request)
	return s.run(opt, facts)
}

// run runs the command.
func (s *sshSession) run(opt *sshOptions, facts *sshFacts) error {
	session, err := s.NewSession()
	if err != nil {
		return s.channelError("session", err)
	}
	defer session.Close()
	out, errs := &sshOutput{full: s.stream.Conn.Close}, &sshOutput{full: s.stream.Conn.Close}
	session.Stdout, session.Stderr = out, errs
	err = session.Run(opt.Command)
	facts.Output, facts.ErrorOutput = string(out.text), string(errs.text)
	if out.over || errs.over {
		return probe.Failf(wire.TooLarge, "the command prints more than %d bytes", sshMaxOutput)
	}
	code := 0
	if exit, ok := errors.AsType[*ssh.ExitError](err); ok {
		if facts.Signal = exit.Signal(); facts.Signal != "" {
			return probe.Failf(wire.Mismatch, "the command was ended by the signal %.20q", facts.Signal)
		}
		code = exit.ExitStatus()
	} else if err != nil {
		return s.channelError("command", err)
	}
	facts.ExitCode = &code
	if !slices.Contains(opt.ExitCodes, code) {
		return probe.Failf(wire.Mismatch, "the command ended with the exit code %d, want %d; it said %.80q", code, opt.ExitCodes, bytes.TrimSpace(errs.text))
	}
	return nil
}

// channelError words what the server says to a request for a channel.
func (s *sshSession) channelError(what string, err error) error {
	if open, ok := errors.AsType[*ssh.OpenChannelError](err); ok {
		r := wire.Unavailable
		if open.Reason == ssh.Prohibited {
			r = wire.Denied
		}
		return probe.Failf(r, "%s: %.200s", what, err.Error())
	}
	if text := err.Error(); strings.HasPrefix(text, "ssh: command ") || strings.HasPrefix(text, "ssh: subsystem ") {
		return probe.Failf(wire.Denied, "%s: the server refuses it", what)
	}
	err = s.stream.cause(err)
	if _, ok := errors.AsType[*ssh.ExitMissingError](err); ok {
		return probe.Failf(wire.Closed, "%s: the server closed the channel without an exit code", what)
	}
	return err
}

// sshMaxOutput bounds what a command may print.
const sshMaxOutput = 64 << 10

// sshOutput is a buffer that ends the session when it is full.
type sshOutput struct {
	text []byte
	full func() error
	over bool
}

func (o *sshOutput) Write(b []byte) (int, error) {
	if len(o.text)+len(b) > sshMaxOutput {
		o.over = true
		o.full()
		return 0, errors.New("too much output")
	}
	o.text = append(o.text, b...)
	return len(b), nil
}
