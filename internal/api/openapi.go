package api

import _ "embed"

// OpenAPI describes control's API; control serves it.
//
//go:embed openapi.yaml
var OpenAPI []byte
