package tallygate

// Version is the version of this package. Every event carries it as `tallygate-go/VERSION`.
const Version = "1.0.0"

const sdk = "tallygate-go/" + Version
