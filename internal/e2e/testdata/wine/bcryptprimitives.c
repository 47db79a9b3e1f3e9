// Go's runtime takes its random bytes from ProcessPrng of bcryptprimitives.dll, which Wine 8 does not have. This is that
// DLL with its one function, which asks the generator that Wine has (RtlGenRandom, exported by advapi32 as
// SystemFunction036).
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID data, ULONG size);

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T size)
{
	return SystemFunction036(data, (ULONG)size);
}
