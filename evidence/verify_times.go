package evidence

import "trysail/release"

// times says what makes the ledger's times doubtful, for the person who verifies to know: a clock
// that went back is no fault of the bundle.
func (c *check) times(h *history) {
	backs := release.ClocksBack(h.events)
	for _, b := range backs {
		c.r.Attention = append(c.r.Attention, b.String())
	}
	last := h.events[len(h.events)-1]
	if _, shipped := last.Body.(release.Shipped); shipped && release.OnTime(h.state.Ship, last.Time, backs) == nil {
		c.r.Attention = append(c.r.Attention, "whether it shipped on time is not known: the ship date lies within what the clock went back by")
	}
}
