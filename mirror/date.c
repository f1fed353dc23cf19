/*
 * Dates of a stream, as RFC 2822 (section 3.3) prints them: "Fri, 04 Oct 2024 09:30:00 +0000". Read
 * and written by hand, since strptime and strftime follow the locale.
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "mirror/model.h"

static const char *const month_names[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                          "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
static const char *const day_names[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};

static void skip_blanks(const char **at)
{
    *at += strspn(*at, " \t");
}

/* A number of `min` to `max` digits; -1 when there is none. */
static int take_number(const char **at, size_t min, size_t max)
{
    size_t digits = strspn(*at, "0123456789");
    if (digits < min || digits > max)
        return -1;
    int number = 0;
    for (; digits > 0; digits--)
        number = number * 10 + (*(*at)++ - '0');
    return number;
}

static bool take_char(const char **at, char c)
{
    if (**at != c)
        return false;
    (*at)++;
    return true;
}

/* One of `count` three-letter names; -1 when it is none. */
static int take_name(const char **at, const char *const *names, int count)
{
    for (int i = 0; i < count; i++)
        if (strncasecmp(*at, names[i], 3) == 0) {
            *at += 3;
            return i;
        }
    return -1;
}

static bool take_date(const char **at, struct tm *tm)
{
    if (take_name(at, day_names, 7) >= 0) {
        skip_blanks(at);
        if (!take_char(at, ','))
            return false;
        skip_blanks(at);
    }
    tm->tm_mday = take_number(at, 1, 2);
    skip_blanks(at);
    tm->tm_mon = take_name(at, month_names, 12);
    skip_blanks(at);
    tm->tm_year = take_number(at, 4, 4) - 1900;
    skip_blanks(at);
    return tm->tm_mday >= 1 && tm->tm_mon >= 0 && tm->tm_year >= 70;
}

/* Seconds may be missing. */
static bool take_clock(const char **at, struct tm *tm)
{
    tm->tm_hour = take_number(at, 2, 2);
    if (!take_char(at, ':'))
        return false;
    tm->tm_min = take_number(at, 2, 2);
    tm->tm_sec = take_char(at, ':') ? take_number(at, 2, 2) : 0;
    skip_blanks(at);
    return tm->tm_hour >= 0 && tm->tm_hour < 24 && tm->tm_min >= 0 && tm->tm_min < 60 &&
           tm->tm_sec >= 0 && tm->tm_sec <= 60;
}

/* Seconds east of UTC. */
static bool take_zone(const char **at, long *ret)
{
    static const char *const names[] = {"UTC", "GMT", "UT", "Z"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcasecmp(*at, names[i]) == 0) {
            *at += strlen(names[i]);
            *ret = 0;
            return true;
        }
    bool west = **at == '-';
    if (!west && **at != '+')
        return false;
    (*at)++;
    int number = take_number(at, 4, 4);
    if (number < 0 || number % 100 >= 60)
        return false;
    *ret = (number / 100 * 60L + number % 100) * (west ? -60L : 60L);
    return true;
}

time_t mirror_date_parse(const char *text)
{
    if (!text)
        return 0;
    const char *at = text;
    struct tm tm = {0};
    long zone;
    skip_blanks(&at);
    if (!take_date(&at, &tm) || !take_clock(&at, &tm) || !take_zone(&at, &zone))
        return 0;
    skip_blanks(&at);
    int day = tm.tm_mday, second = tm.tm_sec;
    time_t t = timegm(&tm);
    if (*at || (tm.tm_mday != day && second < 60)) /* "31 Feb" has become a day of March */
        return 0;
    return t - zone > 0 ? t - zone : 0;
}

char *mirror_stream_time(time_t t)
{
    struct tm tm;
    if (!gmtime_r(&t, &tm))
        memset(&tm, 0, sizeof tm);
    return uvm_format("%s, %02d %s %04ld %02d:%02d:%02d +0000", day_names[tm.tm_wday], tm.tm_mday,
                      month_names[tm.tm_mon], tm.tm_year + 1900L, tm.tm_hour, tm.tm_min, tm.tm_sec);
}
