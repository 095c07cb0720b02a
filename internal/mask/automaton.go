package mask

// automaton finds patterns as Aho and Corasick do: a state is the longest end of what was
// read that begins a pattern.
type automaton struct {
	root  [256]int32 // states after one byte
	nodes []node     // by state; 0 is the root
}

type node struct {
	child, sibling int32 // the first of its children, and the next of its parent's; 0: none
	fail           int32 // the longest end of it that begins a pattern too
	depth          int32 // bytes that it stands for
	found          int32 // bytes of the longest pattern that ends here; 0: none
	c              byte  // by which its parent leads to it
}

func newAutomaton() *automaton { return &automaton{nodes: make([]node, 1)} }

func (a *automaton) add(pattern []byte) {
	at := int32(0)
	for _, c := range pattern {
		to := a.child(at, c)
		if to == 0 {
			to = int32(len(a.nodes))
			a.nodes = append(a.nodes, node{sibling: a.nodes[at].child, depth: a.nodes[at].depth + 1, c: c})
			a.nodes[at].child = to
			if at == 0 {
				a.root[c] = to
			}
		}
		at = to
	}
	a.nodes[at].found = a.nodes[at].depth
}

func (a *automaton) child(at int32, c byte) int32 {
	if at == 0 {
		return a.root[c]
	}
	for to := a.nodes[at].child; to != 0; to = a.nodes[to].sibling {
		if a.nodes[to].c == c {
			return to
		}
	}
	return 0
}

// link makes the automaton ready, once all patterns were added.
func (a *automaton) link() {
	queue := []int32{0}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		for to := a.nodes[at].child; to != 0; to = a.nodes[to].sibling {
			if at != 0 {
				a.nodes[to].fail = a.next(a.nodes[at].fail, a.nodes[to].c)
			}
			a.nodes[to].found = max(a.nodes[to].found, a.nodes[a.nodes[to].fail].found)
			queue = append(queue, to)
		}
	}
}

func (a *automaton) next(at int32, c byte) int32 {
	for {
		if to := a.child(at, c); to != 0 {
			return to
		}
		if at == 0 {
			return 0
		}
		at = a.nodes[at].fail
	}
}
