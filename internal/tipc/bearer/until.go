package bearer

import "time"

// UntilReader is a Reader whose waiting can end at a time. Those of UDP on Linux are.
type UntilReader interface {
	Reader

	// ReadBatchUntil is ReadBatch that returns 0 when nothing has come by t. The zero time means never. A reader whose
	// ReadBatchUntil was used is to be used with that alone: ReadBatch would fail at a time given before.
	ReadBatchUntil(p []Packet, t time.Time) (int, error)
}
