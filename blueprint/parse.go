package blueprint

import (
	"errors"
	"fmt"

	"github.com/goccy/go-yaml"

	"trysail/internal/strict"
)

const maxSize = 4 << 20 // bytes; the largest real blueprint (900 packages) is 150 kB

// ParseError says where a blueprint cannot be read and what to do about it.
type ParseError = strict.Error

const remedyRestore = "restore the file from version control, or capture again"

// Parse reads a blueprint strictly. The file name is used in errors only.
func Parse(file string, data []byte) (*Blueprint, error) {
	if err := strict.Text(file, data, maxSize, remedyRestore); err != nil {
		return nil, err
	}
	b := new(Blueprint)
	if err := strict.YAML(file, data, b, remedyRestore); err != nil {
		return nil, err
	}
	if err := b.Validate(); err != nil {
		var inv *invalidError
		if errors.As(err, &inv) {
			return nil, &ParseError{File: file, Line: strict.Line(data, inv.at), What: inv.what, Remedy: inv.remedy}
		}
		return nil, &ParseError{File: file, What: err.Error(), Remedy: remedyRestore}
	}
	return b, nil
}

// Marshal writes the blueprint in its canonical form. What Parse would refuse
// is not written.
func (b *Blueprint) Marshal() ([]byte, error) {
	b.Sort()
	if err := b.Validate(); err != nil {
		return nil, fmt.Errorf("write blueprint: %w", err)
	}
	body, err := yaml.MarshalWithOptions(b, yaml.IndentSequence(false), yaml.Indent(2), yaml.CustomMarshaler[string](scalar))
	if err != nil {
		return nil, fmt.Errorf("write blueprint: %w", err)
	}
	return append([]byte("# The definition of a build server. Written by trysail capture; the format is in docs/blueprint.md.\n"), body...), nil
}
