/** The package's version, as it stands in package.json: a test compares. */
export const VERSION = "1.0.0";

/** What events name as the library that sent them. @internal */
export const SDK = `tallygate-node/${VERSION}`;
