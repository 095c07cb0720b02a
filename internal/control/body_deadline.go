package control

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// bodyTime is how long whoever asks may take to send what a request carries. It counts
// before anybody has shown a token, and where nobody reads it: the server waits for the
// rest of a body before it answers, also before it refuses. Else whoever reaches control's
// address holds a connection for ever, and as many as it takes until agents get none.
// The server takes the limit away once it has read a body to its end.
const bodyTime = 10 * time.Second

// hurry bounds the time in which the body of a request is to come, if it has one.
func hurry(w http.ResponseWriter, r *http.Request) error {
	if r.Body == http.NoBody {
		return nil // and the server listens already whether the client is gone
	}
	return http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
}

// patient takes the bound away: a blob or a log comes from somebody who is known, takes
// as long as it takes, and is no smaller for a slow network.
func patient(w http.ResponseWriter, r *http.Request) error {
	if r.Body == http.NoBody {
		return nil
	}
	err := http.NewResponseController(w).SetReadDeadline(time.Time{})
	if errors.Is(err, http.ErrNotSupported) {
		return nil // then there is none: the door lets nobody in without
	}
	return err
}

// slowError says that a request did not come to its end in time.
type slowError struct{}

func (e *slowError) Error() string {
	return fmt.Sprintf("the request did not come to its end in %s, and nothing was done", bodyTime)
}

// Hint says what to do.
func (e *slowError) Hint() string {
	return "ask again; if it stays so, the network between here and control loses much"
}
