package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"trysail/fleet"
	"trysail/internal/api"
	"trysail/release"
)

// Each change is an event, and the ledger is of bounded size: no machine fills it by itself.
const (
	mostTerms  = 20        // changes of a machine within termsTime
	termsTime  = time.Hour // by the times of their events
	mostServes = 8 << 10   // bytes of the names of its roles
)

// terms changes what a machine is to the fleet, as the person who started its agent says: its rank,
// the roles that it serves, whether steps may run plainly on it, how many at once. It said
// the same of itself when it joined. What it does not name stays. The answer is all of it.
func (c *Control) terms(ctx context.Context, q *caller, r *http.Request) (any, error) {
	asks, err := body[api.Terms](r)
	if err != nil {
		return nil, err
	}
	if asks.Rank != "" && !slices.Contains(fleet.Ranks(), asks.Rank) {
		return nil, &badRequest{fmt.Errorf("%q is no rank: primary, backup or spare", asks.Rank)}
	}
	if asks.Slots < 0 || asks.Slots > mostSlots {
		return nil, &badRequest{fmt.Errorf("%d steps at once: 1 to %d", asks.Slots, mostSlots)}
	}
	if asks.Serves != nil {
		size := 0
		for _, role := range *asks.Serves {
			size += len(role) + 1
		}
		if size > mostServes {
			return nil, &badRequest{fmt.Errorf("the names of %d roles have %d bytes, and the limit is %d", len(*asks.Serves), size, mostServes)}
		}
	}
	var now enrolled
	err = c.decide(ctx, func() (membership, error) {
		m := c.members[q.machine]
		now = m.enrolled
		if asks.Rank != "" {
			now.Rank = asks.Rank
		}
		if asks.Serves != nil {
			now.Serves = *asks.Serves
		}
		if asks.Plain != nil {
			now.Plain = *asks.Plain
		}
		if asks.Slots > 0 {
			now.Slots = asks.Slots
		}
		if now.Rank == m.Rank && slices.Equal(now.Serves, m.Serves) && now.Plain == m.Plain && now.Slots == m.Slots {
			return membership{}, errNothing
		}
		if len(m.terms) == mostTerms && c.o.Now().Sub(m.terms[0]) < termsTime {
			return membership{}, &release.RuleError{Type: "fleet", What: fmt.Sprintf("%s has changed what it is to the fleet %d times within an hour: ask again in an hour", q.machine, mostTerms)}
		}
		// As older controls read it: it joined again, and what people decided on it stays.
		return membership{Actor: q.name(), Joined: &now, Set: m.set, Reason: m.why}, nil
	})
	if err != nil && !errors.Is(err, errNothing) {
		return nil, err
	}
	return api.Terms{Rank: now.Rank, Serves: &now.Serves, Plain: &now.Plain, Slots: now.Slots}, nil
}
