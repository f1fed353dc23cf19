/* The trailer: twelve bytes that no tar knows of, the checksum of all bytes before (see
 * stage.c). */
#include <endian.h>
#include <string.h>

#include "bundle/internal.h"

#define SKIPPABLE_MAGIC 0x184d2a55u /* the low four bits are free; 5, as in 'U' */

void bundle_trailer_make(unsigned char trailer[BUNDLE_TRAILER_SIZE], uint32_t crc)
{
    const uint32_t fields[3] = {htole32(SKIPPABLE_MAGIC), htole32(sizeof crc), htole32(crc)};
    memcpy(trailer, fields, sizeof fields);
}
