package tallygate

import (
	"crypto/rand"
	"fmt"
	"strconv"
)

// newID returns a random UUID, of version 4.
func newID() string {
	var bits [16]byte
	_, _ = rand.Read(bits[:]) // It never fails: it would end the process.
	bits[6] = bits[6]&0x0f | 0x40
	bits[8] = bits[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", bits[0:4], bits[4:6], bits[6:8], bits[8:10], bits[10:16])
}

// eventID returns the id that the service gives to an operation's item.
func eventID(operationID string, index int) string {
	return operationID + ":" + strconv.Itoa(index)
}

// commitIDMax leaves room for "#c" and the longest index of an event within 128 characters.
const commitIDMax = 120

// settlingID returns the operation id of what settles a reservation: a repeat makes the same.
func settlingID(reservationID, suffix string) string {
	if cut := len(reservationID) - commitIDMax; cut > 0 {
		reservationID = reservationID[cut:] // What is cut off is the part that all share.
	}
	return reservationID + "#" + suffix
}

func orNew(id string) string {
	if id == "" {
		return newID()
	}
	return id
}
