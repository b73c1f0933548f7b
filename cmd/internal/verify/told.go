package verify

// What a driver cannot see for itself it is told by whoever breaks things.

// NodeAway says that a node does not live from now on: it was killed, stopped or cut off.
func (d *Driver) NodeAway(node string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.away = append(d.away, Away{Node: node, From: d.Now()})
}

// NodeBack says that it lives again.
func (d *Driver) NodeBack(node string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.away {
		if a := &d.away[i]; a.Node == node && a.To == 0 {
			a.To = d.Now()
		}
	}
}

// Removing says what is about to be taken out of Kafka on purpose; over is to be called when that is done. A topic
// created again, records deleted at the beginning, and acknowledged records that Kafka no longer has are
// noticed without it, but not when that was.
func (d *Driver) Removing(r Removal) (over func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r.Began = d.Now()
	i := len(d.removed)
	d.removed = append(d.removed, r)
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.removed[i].Ended = d.Now()
	}
}
