package drill

import _ "embed"

// Schema is the JSON Schema of scenarios, for editors and other tools. What it lets
// through, [Parse] may still refuse: whether a name is that of a host or a person, and
// whether a time is one, is nothing that a schema sees.
//
//go:embed scenario.schema.json
var Schema []byte
