/*
 * Names are bytes. libarchive converts them by the locale of the calling thread: in a UTF-8 locale
 * it would even compose accents, and hand out another name than the one in the file. In the "C"
 * locale it writes names beyond ASCII as they are (pax, "hdrcharset=BINARY") and reads them back
 * unchanged.
 */
#include "bundle/internal.h"

struct bundle_locale bundle_locale_enter(void)
{
    struct bundle_locale l = {.c = newlocale(LC_CTYPE_MASK, "C", (locale_t)0)};
    if (!l.c)
        abort();
    l.before = uselocale(l.c);
    return l;
}

void bundle_locale_leave(struct bundle_locale *l)
{
    uselocale(l->before);
    freelocale(l->c);
}
