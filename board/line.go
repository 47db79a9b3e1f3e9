package board

// A Line is an input line of a GPIO chip: a switch, by and large.
type Line struct {
	Chip      string // device file of the chip: /dev/gpiochip0
	Number    uint32 // of the line within the chip
	ActiveLow bool   // active is the low level
	Bias      Bias
}

// Bias is the resistor that the chip puts on a line.
type Bias string

// The biases. The kernel says nothing when a chip has no such resistor, so the line then floats without it.
const (
	BiasAsIs     Bias = ""
	BiasPullUp   Bias = "pull-up"
	BiasPullDown Bias = "pull-down"
	BiasDisabled Bias = "disabled"
)
