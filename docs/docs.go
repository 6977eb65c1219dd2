// Package docs carries the JSON Schema of the checks, which pup-sched needs to
// validate its configuration without linking a single protocol.
package docs

import _ "embed"

// Checks is checks.schema.json. `make generate` writes it from the code of
// pup-probe.
//
//go:embed checks.schema.json
var Checks []byte
