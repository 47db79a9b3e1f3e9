package probe

import "testing"

func TestDomainOf(t *testing.T) {
	for name, want := range map[string]string{"a.b.example": "b.example", "b.example": "b.example", "localhost": "localhost"} {
		if got := domainOf(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
