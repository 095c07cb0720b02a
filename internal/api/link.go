package api

import (
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Link is all that is needed to reach control: its address, or those of several
// with commas between, the digest of its authority's certificate, and a secret.
// As text it is one line:
//
//	trysail://ADDRESS[,ADDRESS…]/FINGERPRINT/SECRET
type Link struct {
	Address, Fingerprint, Secret string
}

// Addresses are those of all controls that the link names.
func (l Link) Addresses() []string { return strings.Split(l.Address, ",") }

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
	if !ok || len(f) != 3 || slices.ContainsFunc(strings.Split(f[0], ","), func(a string) bool { return !port(a) || !addressRE.MatchString(a) }) || !fingerprintRE.MatchString(f[1]) || !secretRE.MatchString(f[2]) {
		return Link{}, errors.New("that is neither a link to control nor a file that holds one: trysail fleet token prints one, trysail://ADDRESS/FINGERPRINT/SECRET")
	}
	return Link{f[0], f[1], f[2]}, nil
}
