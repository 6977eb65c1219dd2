package config

import (
	"fmt"
	"strings"
	"testing"

	"pup/cmd/internal/golden"
	"pup/cmd/internal/manual"
)

const docIntro = `**pup-sched** reads its targets from files in TOML (https://toml.io). A folder stands for the \*.toml files in it, in the order of their names.

Everything is checked before anything runs: unknown keys, wrong types, names given twice, unknown checks, options and facts are mistakes, and all of them are reported at once, each with its place. ` + "`pup-sched --check`" + ` does nothing else, ` + "`--list`" + ` shows the targets as they come out, ` + "`--explain NAME`" + ` where each of their settings comes from.

Durations are text with a unit: "500ms", "30s", "5m", "2h", "1d", "1w". A bare number is a mistake.

Credentials are never written here, only references to them: "${secret:NAME}", a file in the folder that **pup-probe --secrets** names, or "${env:PUP\_NAME}", a variable in the environment of **pup-probe**.
`

const docExample = `include = ["targets.d/*.toml"]

[defaults]
every   = "30s"
timeout = "5s"
labels  = { env = "prod" }

[template.web]
expect = ["http.status == 200"]
warn   = ["tls.days_left > 21", "ms.total < 800"]

[[target]]
name   = "www"
use    = ["web"]
url    = "https://www.example.org/"
labels = { team = "web" }
[target.http]
headers = { Accept = "text/html" }

[[target]]
name   = "shop-${host}"
use    = ["web"]
url    = "https://${host}.example.org/health"
matrix = { host = ["shop1", "shop2", "shop3"] }
depends_on  = ["www"]
maintenance = ["patchday"]

[[target]]
name = "report"
url  = "https://report.example.org/"
cron = "*/5 8-18 * * mon-fri"
tz   = "Europe/Berlin"

[[target]]
name   = "kiosk"
url    = "tcp://kiosk.example.org:5900"
active = ["opening-hours"]

[[window]]
name = "opening-hours"
days = "mon-sat"
from = "08:00"
to   = "20:00"
tz   = "Europe/Berlin"

[[window]]
name = "patchday"
cron = "0 22 1 * *"
for  = "3h"

[[source]]
name    = "inventory"
command = ["/usr/local/libexec/pup/sources/ansible", "/etc/ansible/hosts"]
use     = ["web"]
refresh = "10m"
`

// TestDocExample loads the example of the manual.
func TestDocExample(t *testing.T) {
	c, err := loadText(t, docExample)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(c.Targets); n != 6 {
		t.Errorf("%d targets, want 6", n)
	}
}

// docSections are the parts of pup.toml(5) behind the introduction. Keys
// renders the keys of a table.
func docSections(keys func([]Key) string) string {
	var b strings.Builder
	section := func(title, text string, ks []Key) {
		fmt.Fprintf(&b, "## %s\n\n%s\n\n", title, text)
		if ks != nil {
			b.WriteString(keys(ks) + "\n")
		}
	}
	section("Top level", "The tables below, and", []Key{includeKey})
	section("Targets", "Every `[[target]]` is something to check. It holds these keys, the members that checks have in common (resolver, address, connect, family, source, proxy), a table `tls`, and a table named after the check with its options; pup-checks(7) lists all of these.", targetKeys[:])
	section("Defaults and templates", "`[defaults]` lie under all targets, in whichever of the files they stand. The settings of `[template.NAME]` lie under those of the targets that use it. What is nearer to the target wins. Labels and tables of options are merged, key by key; lists are replaced.\n\nBoth hold the keys of a target, without name and matrix; url may be in a template, but not in the defaults. every and cron replace each other.", nil)
	section("When a target is due", "With `every`, at all times that are a multiple of the interval away from an offset between 0 and the interval, which is a hash of the name. So a target keeps its place when the program is started again, and targets are spread evenly.\n\nWith `cron`, at the times that its expression means in the zone `tz`. The fields are numbers, names (jan, mon), ranges (8-18), steps (\\*/5, 10-40/10) and lists of these; @hourly, @daily, @weekly, @monthly and @yearly are short for the usual ones. If both day of month and day of week are restricted, either will do. Where clocks are set forward, a fixed time that does not exist comes when the clock has been set; where they are set back, a fixed time comes once, at the first of the two. An expression whose minute or hour begins with \\* goes by the time that passes.", nil)
	section("Windows", "A `[[window]]` is a span of time that targets name under `active` and `maintenance`. It has days, from and to, or cron and for, or begin and end.", windowKeys[:])
	section("Sources", "A `[[source]]` prints targets as lines, as programs do that take the place of pup-sched. When it fails, what it printed before is kept. A line with a mistake is reported and left out. A name that the files have given to a target is taken. The scripts in scripts/sources read lists in CSV and JSON, Prometheus file\\_sd, Ansible inventories, /etc/hosts, docker, systemd and DNS.", sourceKeys[:])
	return b.String()
}

// TestGeneratedManual keeps docs/pup.toml.md and pup.toml(5).
func TestGeneratedManual(t *testing.T) {
	example := "## Example\n\n    " + strings.ReplaceAll(strings.TrimSpace(docExample), "\n", "\n    ") + "\n"
	table := func(ks []Key) string {
		b := "| key | type | default | meaning |\n|---|---|---|---|\n"
		for _, k := range ks {
			b += fmt.Sprintf("| `%s` | %s | %s | %s |\n", k.Name, k.Type, k.Default, k.Doc)
		}
		return b
	}
	list := func(ks []Key) string {
		b := ""
		for _, k := range ks {
			b += fmt.Sprintf("**%s** (%s", strings.ReplaceAll(k.Name, "_", `\_`), k.Type)
			if k.Default != "" {
				b += ", default " + k.Default
			}
			b += ")\n:   " + strings.NewReplacer("_", `\_`, "*", `\*`).Replace(k.Doc) + "\n\n"
		}
		return b
	}
	md := "<!-- Made by 'make generate' from cmd/pup-sched/internal/config. Do not edit. -->\n\n# pup.toml\n\n" + docIntro + "\n" + example + "\n" + docSections(table)
	golden.File(t, "docs/pup.toml.md", []byte(strings.TrimRight(md, "\n")+"\n"))
	also := []string{"pup-sched(1)", "pup-checks(7)", "pup-lines(5)", "pup-probe(1)"}
	man := manual.Page("pup.toml", 5, "the targets of pup-sched", "## Description\n\n"+docIntro+"\n"+example+"\n"+docSections(list), also)
	golden.File(t, "docs/man/pup.toml.5", manual.Roff(man))
}
