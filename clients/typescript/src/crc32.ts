/** CRC-32 as IEEE 802.3 defines it. Node has it built in only from 20.15 and 22.2 on. */

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) {
    value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  }
  return value;
});

/** Return the checksum of the parts, one after the other. @internal */
export function crc32(...parts: Uint8Array[]): number {
  let value = 0xffffffff;
  for (const part of parts) {
    for (const byte of part) {
      value = (TABLE[(value ^ byte) & 0xff] as number) ^ (value >>> 8);
    }
  }
  return ~value >>> 0;
}
