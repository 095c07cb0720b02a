package release

import (
	"fmt"
	"strings"
)

// NeedsOriginal tells whether an original of a blueprint, by its name in
// blueprint.sum, is needed to run steps in the rebuilt server: what only a proof
// needs is not.
func NeedsOriginal(name string) bool {
	kind, _, _ := strings.Cut(name, "/")
	switch kind {
	case "source", "made", "again", "observation":
		return false
	}
	return true
}

// Sentence says an event in words.
func Sentence(e Event) string {
	switch b := e.Body.(type) {
	case Started:
		return fmt.Sprintf("release %s of %s began, by %s", b.Version, b.Source.Revision, e.Actor)
	case Granted:
		if b.Confirm {
			return fmt.Sprintf("%s is built again on %s", b.Item, b.Machine)
		}
		return fmt.Sprintf("%s begins on %s", b.Item, b.Machine)
	case Finished:
		switch {
		case b.Exit != 0:
			return fmt.Sprintf("%s failed: %s", b.Item, b.Why)
		case len(b.Failing) > 0:
			return fmt.Sprintf("%s ended with %d of %d tests failed", b.Item, len(b.Failing), b.Tests)
		}
		return fmt.Sprintf("%s ended well", b.Item)
	case Committed:
		return fmt.Sprintf("gold is committed: %s made %d file(s)", b.Item, b.Made().Files)
	case Confirmed:
		return fmt.Sprintf("the second build of gold is %s", b.Verdict)
	case Excepted:
		return fmt.Sprintf("%s signed for %d difference(s) of gold", b.Person, len(b.Differences))
	case Lost:
		return fmt.Sprintf("%s was lost while it ran %s: %s", b.Machine, b.Item, b.Why)
	case Refused:
		return fmt.Sprintf("a result of %s from %s was refused: %s", b.Item, b.Machine, b.Why)
	case Retried:
		return fmt.Sprintf("%s may run again%s", b.Item, because(b.Reason))
	case Waived:
		return fmt.Sprintf("%s waived test %s of %s%s", b.Person, b.Test, b.Item, because(b.Reason))
	case Passed:
		return fmt.Sprintf("wait %s is over", b.Item)
	case Signed:
		return fmt.Sprintf("%s: %s says %s%s", b.Item, b.Person, b.Decision, because(b.Reason))
	case Withdrawn:
		return fmt.Sprintf("%s: %s takes their word back%s", b.Item, b.Person, because(b.Reason))
	case Amended:
		return fmt.Sprintf("%s proposes to change %s%s", b.By, strings.Join(b.What, ", "), because(b.Reason))
	case Agreed:
		return fmt.Sprintf("amendment %d: %s says %s%s", b.Amendment, b.Person, b.Decision, because(b.Reason))
	case Held:
		return "held" + because(b.Reason)
	case Resumed:
		return "goes on"
	case Aborted:
		return "aborted" + because(b.Reason)
	case Shipped:
		return "shipped"
	}
	return e.Type
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}
