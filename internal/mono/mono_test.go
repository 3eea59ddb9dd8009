package mono

import (
	"math"
	"testing"
	"testing/synctest"
	"time"
)

func TestAddSaturates(t *testing.T) {
	for _, tc := range []struct {
		t    Time
		d    time.Duration
		want Time
	}{
		{0, time.Second, Time(time.Second)},
		{5, -7, -2},
		{Never, 0, Never},
		{Never, 1, Never},
		{Never - 1, time.Hour, Never},
		{Never, math.MaxInt64, Never},
	} {
		if got := tc.t.Add(tc.d); got != tc.want {
			t.Errorf("%d.Add(%d) = %d, want %d", tc.t, tc.d, got, tc.want)
		}
	}
}

func TestOrder(t *testing.T) {
	a, b := Time(1), Time(2)
	if !a.Before(b) || b.Before(a) || a.Before(a) || !b.After(a) || a.After(a) {
		t.Error("Before and After disagree with the numbers")
	}
	if a.Min(b) != a || b.Min(a) != a {
		t.Error("Min does not return the earlier time")
	}
	if b.Sub(a) != 1 || b.Until(a) != 1 || a.Until(b) != 0 {
		t.Error("Sub or Until is wrong")
	}
}

func TestNowFollowsTheBubbleClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := Now()
		time.Sleep(time.Hour)
		if d := Now().Sub(a); d != time.Hour {
			t.Errorf("an hour of the bubble's time measured as %v", d)
		}
	})
}

func TestNowNeverGoesBack(t *testing.T) {
	last := Now()
	for range 1000 {
		n := Now()
		if n.Before(last) {
			t.Fatalf("Now went from %v back to %v", last, n)
		}
		last = n
	}
}
