package config

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"pup/cmd/pup-route/internal/state"
)

func TestTogether(t *testing.T) {
	hook := func(lines string) string {
		return "[[hook]]\nname = \"a\"\non = [\"down\", \"recovered\"]\ncommand = [\"./page\"]\n" + lines
	}
	for _, tt := range []struct {
		text   string
		quorum state.Share
		want   *state.Together
	}{
		{"", state.Share{}, nil},
		{"quorum = 2", state.Share{Count: 2}, nil},
		{`quorum = "2"`, state.Share{Count: 2}, nil},
		{`quorum = "majority"`, state.Share{Majority: true}, nil},
		{`quorum = "67%"`, state.Share{Percent: 67}, nil},
		{`members = { names = ["x", "y"] }`, state.Share{}, &state.Together{Names: []string{"x", "y"}, AtLeast: state.Share{Percent: 100}}},
		{`members = { same = "labels.pool", at_least = 2 }`, state.Share{}, &state.Together{Same: []string{"labels.pool"}, AtLeast: state.Share{Count: 2}}},
		{`common_cause = { same = ["address/24", "tls.issuer"] }`, state.Share{},
			&state.Together{Same: []string{"address/24", "tls.issuer"}, AtLeast: state.Share{Count: 3}, Cause: true, Within: time.Minute}},
		{`common_cause = { same = ["labels.rack"], at_least = "50%", within = "10s" }`, state.Share{},
			&state.Together{Same: []string{"labels.rack"}, AtLeast: state.Share{Percent: 50}, Cause: true, Within: 10 * time.Second}},
	} {
		c, err := load(t, hook(tt.text))
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		if r := c.Hooks[0].Rule; r.Quorum != tt.quorum || !reflect.DeepEqual(r.Together, tt.want) {
			t.Errorf("%s: got %+v and %+v, want %+v and %+v", tt.text, r.Quorum, r.Together, tt.quorum, tt.want)
		}
	}
	for _, tt := range []struct{ text, want string }{
		{hook("quorum = 0"), `hooks.toml:5: quorum: "0": want a number of them, 1 or more`},
		{hook(`quorum = "half"`), `hooks.toml:5: quorum: "half": want a number`},
		{hook("quorum = true"), `hooks.toml:5: quorum: "true": want a number`},
		{hook("members = {}"), "hooks.toml:5: members: want names or same"},
		{hook(`members = { names = ["x"], same = "labels.x" }`), "hooks.toml:5: members: want names or same"},
		{hook(`members = { names = ["x"], at_least = 2 }`), "hooks.toml:5: members: at_least: there are only 1 names"},
		{hook(`members = { same = "lables.pool" }`), `hooks.toml:5: members: same: "lables.pool": `},
		{hook(`members = { same = "address/64" }`), `want a prefix of an IPv4 address, 1 to 32`},
		{hook(`members = { name = ["x"] }`), `hooks.toml:5: hook[0].members.name: no such option`},
		{hook(`common_cause = {}`), "same"},
		{hook(`common_cause = { same = ["labels.x"], at_least = 1 }`), "one name has nothing in common"},
		{hook(`common_cause = { same = ["labels.x"], within = "-1s" }`), "within"},
		{hook("members = { names = [\"x\"] }\ncommon_cause = { same = [\"labels.x\"] }"), "hooks.toml:6: common_cause: does not go with members"},
		{strings.Replace(hook(`members = { names = ["x"] }`), `"down"`, `"change"`, 1), "needs an on of statuses other than up"},
		{strings.Replace(hook(`members = { names = ["x"] }`), `"down", "recovered"`, `"recovered"`, 1), "needs an on of statuses other than up"},
		{strings.Replace(hook(`quorum = 2`), `"down", "recovered"`, `"always"`, 1), "hooks.toml:5: quorum: does not go with always"},
	} {
		_, err := load(t, tt.text)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s\n got %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

func TestForgetAfter(t *testing.T) {
	for text, want := range map[string]time.Duration{"": 7 * 24 * time.Hour, `forget_after = "36h"`: 36 * time.Hour, `forget_after = "0s"`: 0} {
		c, err := load(t, text)
		if err != nil || c.ForgetAfter != want {
			t.Errorf("%q: got %v, %v, want %v", text, c, err, want)
		}
	}
}
