package owner

import (
	"fmt"

	"hawser/identity"
	"hawser/internal/durable"
)

// Rekey makes what is known in dir that of self, the same device with another key, whose chain is this. It may be done again:
// after a power cut nobody knows whether it was.
func Rekey(dir string, self identity.Peer, chain []string) error {
	slots, err := durable.OpenSlots(dir, SlotName)
	if err != nil {
		return err
	}
	b, err := slots.Load()
	var s stored
	var k known
	if err == nil {
		k, err = s.parse(b)
	}
	if err == nil && s.Self != self.Name.String() {
		err = fmt.Errorf("it is that of %s", s.Self)
	}
	if err != nil {
		return fmt.Errorf("read owner: %w", err)
	}
	k.own = chain
	o := &Owner{slots: slots, self: self}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.storeLocked(k)
}
