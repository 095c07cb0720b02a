package release_test

import (
	"hash/maphash"
	"reflect"
	"time"

	"trysail/release"
)

// fingerprint is a digest of all that a state holds, whatever it points at.
func fingerprint(seed maphash.Seed, s *release.State) uint64 {
	return walk(seed, reflect.ValueOf(s))
}

func mix(a, b uint64) uint64 {
	a = (a ^ b) * 0xbf58476d1ce4e5b9
	return (a ^ a>>29) * 0x94d049bb133111eb
}

func walk(seed maphash.Seed, v reflect.Value) uint64 {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return 1
		}
		return mix(2, walk(seed, v.Elem()))
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return uint64(v.Interface().(time.Time).UnixNano())
		}
		h := uint64(3)
		for i := range v.NumField() {
			h = mix(h, walk(seed, v.Field(i)))
		}
		return h
	case reflect.Slice, reflect.Array:
		h := uint64(4 + v.Len())
		for i := range v.Len() {
			h = mix(h, walk(seed, v.Index(i)))
		}
		return h
	case reflect.Map:
		h := uint64(5)
		for r := v.MapRange(); r.Next(); {
			h += mix(walk(seed, r.Key()), walk(seed, r.Value()))
		}
		return h
	case reflect.String:
		return maphash.String(seed, v.String())
	case reflect.Bool:
		if v.Bool() {
			return 7
		}
		return 6
	case reflect.Int, reflect.Int64, reflect.Int32:
		return mix(8, uint64(v.Int()))
	case reflect.Uint64:
		return mix(9, v.Uint())
	}
	panic("a state holds a " + v.Kind().String())
}
