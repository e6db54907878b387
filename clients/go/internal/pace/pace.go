// Package pace holds the times by which watches reconnect. Only tests set them.
package pace

import "time"

var (
	// Slack is how long after two heartbeat intervals without a message a stream is taken for dead.
	Slack = 5 * time.Second

	// Base is the bound of the first wait before a reconnect; each further one is twice as long.
	Base = 100 * time.Millisecond
)
