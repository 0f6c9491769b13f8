package tallygate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"google.golang.org/protobuf/proto"

	"github.com/tallygate/tallygate/clients/go/tallygatepb"
)

// A spool's record is the same in every language: the payload's length and its CRC-32 (IEEE), each
// four bytes, little-endian, and the payload: a byte for its kind, and the message.
const (
	recordHeader   = 8
	recordBytesMax = 16 << 20 // Far above what a call may carry: more is no length.

	kindRecord byte = 1
	kindCommit byte = 2 // Of earlier clients: read, and no longer written.
	// kindSettle is a commit and what to record when its reservation is gone: the commit's length
	// in four bytes, the commit, and the events as a batch.
	kindSettle byte = 3
)

var errTorn = errors.New("torn record")

// encode appends an entry to out as a record.
func encode(out []byte, each *entry) ([]byte, error) {
	begin := len(out)
	out = append(out, make([]byte, recordHeader)...)
	var err error
	if each.commit == nil {
		out, err = proto.MarshalOptions{}.MarshalAppend(append(out, kindRecord), each.records[0])
	} else {
		out = append(out, kindSettle, 0, 0, 0, 0)
		at := len(out)
		if out, err = (proto.MarshalOptions{}).MarshalAppend(out, each.commit); err == nil {
			binary.LittleEndian.PutUint32(out[at-4:], uint32(len(out)-at)) //nolint:gosec // bounded
			batch := &tallygatepb.BatchRecordUsageRequest{Requests: each.records}
			out, err = proto.MarshalOptions{}.MarshalAppend(out, batch)
		}
	}
	if err != nil {
		return nil, invalid("", err.Error(), "")
	}
	payload := out[begin+recordHeader:]
	binary.LittleEndian.PutUint32(out[begin:], uint32(len(payload))) //nolint:gosec // bounded
	binary.LittleEndian.PutUint32(out[begin+4:], crc32.ChecksumIEEE(payload))
	return out, nil
}

// next returns the first payload of data and how many bytes its record takes. It fails with errTorn
// where data is no record; size is then that of what claims to be one, as far as it goes.
func next(data []byte) (payload []byte, size int, err error) {
	if len(data) < recordHeader {
		return nil, len(data), errTorn
	}
	length := int64(binary.LittleEndian.Uint32(data))
	if length == 0 || length > recordBytesMax || length > int64(len(data)-recordHeader) {
		return nil, len(data), errTorn
	}
	size = recordHeader + int(length)
	payload = data[recordHeader:size]
	if crc32.ChecksumIEEE(payload) != binary.LittleEndian.Uint32(data[4:]) {
		return nil, size, errTorn
	}
	return payload, size, nil
}

// decode returns the entry of a payload.
func decode(payload []byte) (*entry, error) {
	kind, message := payload[0], payload[1:]
	switch kind {
	case kindRecord:
		record := &tallygatepb.RecordUsageRequest{}
		if err := proto.Unmarshal(message, record); err != nil {
			return nil, err
		}
		return &entry{records: []*tallygatepb.RecordUsageRequest{record}}, nil
	case kindCommit:
		commit := &tallygatepb.CommitRequest{}
		return &entry{commit: commit}, proto.Unmarshal(message, commit)
	case kindSettle:
		if len(message) < 4 {
			return nil, errTorn
		}
		length := int64(binary.LittleEndian.Uint32(message))
		if length > int64(len(message)-4) {
			return nil, errTorn
		}
		commit, batch := &tallygatepb.CommitRequest{}, &tallygatepb.BatchRecordUsageRequest{}
		if err := proto.Unmarshal(message[4:4+length], commit); err != nil {
			return nil, err
		}
		err := proto.Unmarshal(message[4+length:], batch)
		return &entry{commit: commit, records: batch.GetRequests()}, err
	default:
		return nil, fmt.Errorf("no such kind: %d", kind)
	}
}
