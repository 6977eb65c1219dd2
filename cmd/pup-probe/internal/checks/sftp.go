package checks

import (
	"context"
	"errors"
	"io"
	"strconv"
	"time"

	"pup/cmd/internal/wire"
	"pup/cmd/pup-probe/internal/probe"
)

type sftpOptions struct {
	sshSessionOptions
	Path string `json:"path" doc:"The file or directory to look at, instead of the URL's path; one that does not begin with / is in the user's home."`
}

type sftpFacts struct {
	sshSessionFacts
	Type      string   `json:"type" doc:"What is at the path: file, directory or other."`
	SizeBytes *int64   `json:"size_bytes" doc:"How large it is."`
	AgeMS     *float64 `json:"age_ms" doc:"How long ago it was changed, in milliseconds; SFTP has whole seconds only."`
	Mode      string   `json:"mode" doc:"Its permissions in octal, such as 0644."`
}

func init() {
	register(probe.Info{
		Name:    "sftp",
		Summary: "a file is there, seen by SFTP",
		Schemes: []probe.Scheme{{Name: "sftp", Port: 22}},
		Example: "sftp://host.example.org",
		Common:  probe.OverTCP,
		Doc: `Up means all that up means for ssh, and, with a password or a key, that the server speaks SFTP (version 3, draft-ietf-secsh-filexfer-02) and that what the path names exists. Links are followed. Nothing is read or written.

Without credentials and a path the check ends where the login would begin, as ssh does: logged_in is false, and up says nothing of files. With credentials alone the user's home is asked for.

A path that does not exist is ` + "`mismatch`" + `, one that we may not see ` + "`denied`" + `. ` + "`expect = [\"sftp.age_ms < 90000000\"]`" + ` tells that the backup of last night is missing.

Phases: greet has the identification and the key exchange, auth the login, request SFTP.`,
	}, sftpOptions{}, sftp)
}

func sftp(ctx context.Context, p *probe.Probe, opt *sftpOptions, facts *sftpFacts) error {
	path := opt.Path
	if path == "" {
		path = p.URL.Path
	}
	asked := path != ""
	if !asked {
		path = "."
	}
	s, err := sshDial(ctx, p, &opt.sshSessionOptions, &facts.sshSessionFacts, asked)
	defer s.close()
	if err != nil || s == nil {
		return err
	}
	p.Phase(wire.Request)
	f, err := s.stat(path)
	if err != nil {
		return err
	}
	facts.Type, facts.SizeBytes = f.kind(), f.size
	if f.mode != nil {
		facts.Mode = "0" + strconv.FormatUint(uint64(*f.mode&0o7777), 8)
	}
	if f.modified != nil {
		facts.AgeMS = new(wire.MS(time.Since(*f.modified)))
	}
	return nil
}

// stat asks for a file over a channel of its own.
func (s *sshSession) stat(path string) (*sftpFile, error) {
	session, err := s.NewSession()
	if err != nil {
		return nil, s.channelError("session", err)
	}
	defer session.Close()
	var rw struct {
		io.Reader
		io.Writer
	}
	if rw.Writer, err = session.StdinPipe(); err != nil {
		return nil, err
	}
	if rw.Reader, err = session.StdoutPipe(); err != nil {
		return nil, err
	}
	if err := session.RequestSubsystem("sftp"); err != nil {
		return nil, s.channelError("sftp", err)
	}
	if err := sftpHello(rw); err != nil {
		return nil, s.eof(err)
	}
	f, err := sftpLook(rw, path)
	return f, s.eof(err)
}

// eof says why the channel has ended.
func (s *sshSession) eof(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return s.stream.cause(err)
	}
	return err
}
