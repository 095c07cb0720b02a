package strict

import (
	"fmt"

	"github.com/go-json-experiment/json"
	v1 "github.com/go-json-experiment/json/v1"
)

// JSON reads one value of at most so many bytes into v. It refuses what two readers may read
// in two ways: a key that is repeated, not known, or spelled with other letters (encoding/json
// takes "Decision" for "decision"), text that is not UTF-8, and whatever follows the value.
// Durations are numbers of nanoseconds, as encoding/json writes them.
func JSON(data []byte, most int, v any) error { return readJSON(data, most, v, true) }

// PartOfJSON reads as [JSON] does, and passes over keys that v does not know: others write
// them.
func PartOfJSON(data []byte, most int, v any) error { return readJSON(data, most, v, false) }

func readJSON(data []byte, most int, v any, whole bool) error {
	if len(data) > most {
		return fmt.Errorf("%d bytes is too large, %d is the most", len(data), most)
	}
	return json.Unmarshal(data, v, json.RejectUnknownMembers(whole), v1.FormatDurationAsNano(true))
}

// Dense refuses JSON of more values than programs send, one in eight bytes and some more: three
// bytes of it can be a value that has a hundred in memory.
func Dense(data []byte) error {
	values, most := 0, 1000+len(data)/8
	for i, quoted := 0, false; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ',' || c == '{' || c == '['):
			values++
		}
	}
	if values > most {
		return fmt.Errorf("%d values in %d bytes", values, len(data))
	}
	return nil
}
