package blueprint

import (
	"regexp"
	"strconv"
)

var (
	plainRE   = regexp.MustCompile(`^[A-Za-z/_][A-Za-z0-9/._+~@=%*-]*(?:[: ][A-Za-z0-9/._+~@=%*()-]+)*$`)
	keywordRE = regexp.MustCompile(`(?i)^(?:null|true|false|yes|no|on|off|y|n)$`)
)

// scalar writes a text so that it reads back as the same text, wherever it
// stands. The library's own choice does not: a line end or a tab inside a flow
// sequence, or the text ".inf", does not come back.
func scalar(s string) ([]byte, error) {
	if plainRE.MatchString(s) && !keywordRE.MatchString(s) {
		return []byte(s), nil
	}
	return []byte(strconv.Quote(s)), nil
}
