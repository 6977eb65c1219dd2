package checks

import (
	"context"

	"pup/cmd/pup-probe/internal/probe"
)

type tcpOptions struct{}

type tcpFacts struct{}

func init() {
	register(probe.Info{
		Name:    "tcp",
		Summary: "accepts a connection",
		Schemes: []probe.Scheme{{Name: "tcp"}},
		Example: "tcp://db.example.org:5432",
		Common:  probe.OverTCP,
		Doc:     `Up means that something accepts connections there.`,
	}, tcpOptions{}, tcp)
}

func tcp(ctx context.Context, p *probe.Probe, opt *tcpOptions, facts *tcpFacts) error {
	c, err := p.Dial(ctx)
	if err != nil {
		return err
	}
	return c.Close()
}
