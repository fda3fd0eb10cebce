package e2e

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pratique-sec/pratique/services/pratique/e2e/processes"
)

// deed is one thing that chaos does.
type deed string

const (
	killService deed = "kill a service"
	killNATS    deed = "kill NATS"
	killRedis   deed = "kill Redis"
	flushRedis  deed = "FLUSHALL"
	natsAway    deed = "kill NATS for longer than AckWait"
	hang        deed = "freeze a service for longer than AckWait"
)

// act is a deed, on whom, and the pause before it.
type act struct {
	deed   deed
	victim int // index in System.Services, modulo their number
	pause  time.Duration
}

// plan is what chaos will do: the seed decides it, down to the victims.
func plan(r *rand.Rand, acts int) []act {
	deeds := []deed{killNATS, killNATS, killRedis, killRedis, flushRedis, flushRedis, natsAway, hang, hang}
	for len(deeds) < acts {
		deeds = append(deeds, killService)
	}
	r.Shuffle(len(deeds), func(a, b int) { deeds[a], deeds[b] = deeds[b], deeds[a] })
	out := make([]act, len(deeds))
	for i, d := range deeds {
		out[i] = act{d, r.IntN(1000), time.Second + time.Duration(r.IntN(2500))*time.Millisecond}
	}
	return out
}

// chaos carries out a plan.
type chaos struct {
	system  *processes.System
	ackWait time.Duration
	say     func(format string, args ...any)
	flush   func() error

	kills        int      // of services
	disturbances []outage // kills of services (which are moments), NATS that is away, services that hang
}

func (c *chaos) run(plan []act) error {
	for _, a := range plan {
		<-time.After(a.pause)
		if err := c.do(a); err != nil {
			return fmt.Errorf("%s: %w", a.deed, err)
		}
	}
	return nil
}

// reconnect is how long clients take to come back to a NATS that is there again, on a busy machine.
const reconnect = 5 * time.Second

func (c *chaos) do(a act) error {
	victim := c.system.Services[a.victim%len(c.system.Services)]
	switch a.deed {
	case killService:
		c.say("kill -9 %s", victim.Name)
		c.kills++
		from := time.Now()
		victim.Kill()
		c.disturbances = append(c.disturbances, outage{victim.Name, from, time.Now()})
		return victim.Start()
	case hang:
		c.say("freeze %s", victim.Name)
		from := time.Now()
		victim.Freeze()
		<-time.After(c.ackWait * 3 / 2)
		victim.Thaw()
		c.disturbances = append(c.disturbances, outage{victim.Name, from, time.Now()})
		return nil
	case killNATS, natsAway:
		c.say("%s", a.deed)
		from := time.Now()
		c.system.NATS.Kill()
		if a.deed == natsAway {
			<-time.After(c.ackWait * 3 / 2)
		}
		err := c.system.NATS.Start()
		c.disturbances = append(c.disturbances, outage{"", from, time.Now().Add(reconnect)})
		return err
	case killRedis:
		c.say("%s", a.deed)
		c.system.Redis.Kill()
		return c.system.Redis.Start()
	case flushRedis:
		c.say("%s", a.deed)
		if err := c.flush(); err != nil {
			c.say("Redis does not answer: %v", err) // it was killed a moment ago, and holds nothing
		}
		return nil
	}
	return fmt.Errorf("no such deed")
}
