package api

import (
	"errors"
	"regexp"
	"strconv"
	"strings"
)

// Link is all that is needed to reach control: its address, the digest of its
// authority's certificate, and a secret. As text it is one line:
//
//	trysail://ADDRESS/FINGERPRINT/SECRET
type Link struct {
	Address, Fingerprint, Secret string
}

const scheme = "trysail://"

func (l Link) String() string {
	return scheme + l.Address + "/" + l.Fingerprint + "/" + l.Secret
}

var (
	fingerprintRE = regexp.MustCompile(`^[0-9a-f]{64}$`)
	secretRE      = regexp.MustCompile(`^[0-9a-f]{48}$`)
	addressRE     = regexp.MustCompile(`^(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$`)
)

// port tells whether an address ends in one.
func port(address string) bool {
	_, p, _ := strings.Cut(address[strings.LastIndex(address, "]")+1:], ":")
	_, err := strconv.ParseUint(p, 10, 16)
	return err == nil
}

// ParseLink reads a link. Its errors never hold the secret.
func ParseLink(s string) (Link, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(s), scheme)
	f := strings.Split(rest, "/")
	if !ok || len(f) != 3 || !port(f[0]) || !addressRE.MatchString(f[0]) || !fingerprintRE.MatchString(f[1]) || !secretRE.MatchString(f[2]) {
		return Link{}, errors.New("that is neither a link to control nor a file that holds one: trysail fleet token prints one, trysail://ADDRESS/FINGERPRINT/SECRET")
	}
	return Link{f[0], f[1], f[2]}, nil
}
