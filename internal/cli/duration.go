package cli

import "time"

// duration is a flag that holds a time as runbooks write it.
type duration struct {
	to   *time.Duration
	read func(string) (time.Duration, error)
}

func (d *duration) Set(s string) (err error) {
	*d.to, err = d.read(s)
	return err
}

func (d *duration) Type() string { return "TIME" }

// String is what help shows as the default: none, since pflag leaves out what is empty.
func (d *duration) String() string { return "" }
